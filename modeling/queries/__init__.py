"""What the doors read: budgets, ledgers, jobs, queues."""

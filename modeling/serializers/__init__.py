"""What the API takes and gives, as serializers: the shapes of the OpenAI API, ours beside theirs."""

"""The workshop: private training, pure Python and torch; knows no Django, no database, no broker."""

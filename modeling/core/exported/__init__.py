"""What a downloaded model runs with: each file becomes the predict.py of one task, flattened with what it imports."""

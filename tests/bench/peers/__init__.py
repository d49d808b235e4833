"""Other serving programs with the same classifier, as their documents set them up, to be compared with ours."""

"""One small file per inference runtime, behind one Protocol."""

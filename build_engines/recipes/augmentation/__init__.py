"""How training changes images at random."""

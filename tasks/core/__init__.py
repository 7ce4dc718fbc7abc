"""What every stage rests on; knows no stage."""

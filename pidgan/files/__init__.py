"""Files of the user: ROOT, Parquet and numpy; the only room that knows formats."""

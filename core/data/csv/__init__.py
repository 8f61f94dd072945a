"""CSV files: text, columns, label columns and their values, views."""

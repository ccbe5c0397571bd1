"""Pictures of Laue maps and tables, a file for each subject."""

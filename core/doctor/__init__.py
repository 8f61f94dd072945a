"""`python -m core.doctor`: is all that a training needs here, and sound?"""

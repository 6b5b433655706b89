"""The pages, a module each with a function `page`.

This folder must not be called `pages`: Streamlit makes its own navigation out of a folder of that name beside `app.py`.
"""

"""The Streamlit app over a folder of studies: `launch.serve` starts it, `app` shows a page.

`content` has a module a page, `decision` the parts of the page to decide on, `elements` what pages are made of.
`snapshots` keeps what was read of each study.
"""

"""A part of programs that tests start: the process kills itself before a rename, as a crash at that instant would.

The program imports `os` and `signal`, holds this text, and calls `sys.addaudithook(at)`. RENAMES counts down to the
rename; without it nothing is killed.
"""

KILLED_AT_RENAME = """
left = int(os.environ.get("RENAMES", -1))
def at(event, arguments):
    global left
    if event == "os.rename":
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1
"""

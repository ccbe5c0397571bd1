"""`python -m braggscope` is the program `braggscope`."""

from .app.cli.main import run

if __name__ == "__main__":
    run()

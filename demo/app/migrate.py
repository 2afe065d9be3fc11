"""What an app brings along to make the database fit for it; this one only says that it did.

It runs once for each version, before any group of that version starts (`hooks: before`).
"""

from pathlib import Path

if __name__ == "__main__":
    print(f"the schema is now that of {Path('version').read_text('utf-8').strip()}")

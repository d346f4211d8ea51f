"""What runs inside the sandbox's Python: the program under test in one guest, its tests in another, joined by messages.

These files are sent to the guest as text (`checking.code.guests`); they use the standard library alone.
"""

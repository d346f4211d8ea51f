"""What the program checks stand on: the sandbox for programs, killable workers, reading and comparing mathematics."""

"""Mathematics: whether two expressions are equal, decided in a process that can be killed."""

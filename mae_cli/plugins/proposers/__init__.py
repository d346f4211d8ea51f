"""How proposals are prompted: from nothing, from references, or by chance from either."""

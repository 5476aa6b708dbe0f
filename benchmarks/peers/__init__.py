"""Other people's generators, written anew for luma and trained on the same pictures as ours."""

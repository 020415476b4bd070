"""One typed block per stage: what only that stage needs to know."""

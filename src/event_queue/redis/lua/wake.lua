-- The next in the line is told. KEYS: hungry.
wake(KEYS[1], 1)
return 'ok'

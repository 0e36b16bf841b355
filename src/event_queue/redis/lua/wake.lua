-- The next in the line are told. KEYS: hungry. ARGV: how many.
wake(KEYS[1], tonumber(ARGV[1]))
return 'ok'

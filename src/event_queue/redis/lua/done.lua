-- Messages with ids of their own are processed. KEYS: stream, ids. ARGV: entries and ids in turn.
for i = 1, #ARGV, 2 do finish(KEYS[1], KEYS[2], ARGV[i], ARGV[i + 1]) end
return 'ok'

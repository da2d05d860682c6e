-- Traces that are compiled, side traces that are linked into them, and all of it flushed and compiled anew. One thread: Lua has no more. Argument: rounds.
local sum = 0
for round = 1, 40 * tonumber(arg[1]) do
	local steps = {
		function(x) return (x * 3 + round) % 65521 end,
		function(x) return (x + 7 * round) % 65521 end,
		loadstring('return function(x) return (x + ' .. round .. ') % 65521 end')(),
	}
	for i = 1, 3000 do
		local step = steps[i % (1 + round % 3) + 1]
		sum = step(sum)
		if i % 97 == 0 then sum = sum + #tostring(i) end
	end
	if round % 10 == 0 then jit.flush() end
end
print('WORK DONE', sum)

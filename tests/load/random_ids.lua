-- wrk: GET /nns of one product at random a request, of all categories in proportion to their sizes.
-- Arguments: the rest of the query, the size of category 1, of category 2, and so on; ids are as
-- made_release.py gives them. Each connection waits for $PAUSE_MS between its requests.
local rest, first, total = "", {}, 0

function init(arguments)
  rest = arguments[1]
  for i = 2, #arguments do
    first[i - 1] = total
    total = total + tonumber(arguments[i])
  end
end

function request()
  local place = math.random(0, total - 1)
  local low, high = 1, #first
  while low < high do
    local middle = math.floor((low + high + 1) / 2)
    if first[middle] <= place then low = middle else high = middle - 1 end
  end
  local id = 10000 + 3 * (place - first[low])
  return wrk.format("GET", "/nns?category_id=" .. low .. "&product_id=" .. id .. rest)
end

local pause = tonumber(os.getenv("PAUSE_MS") or "0")
if pause > 0 then
  function delay() return pause end
end

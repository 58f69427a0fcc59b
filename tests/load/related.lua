-- wrk: GET /related of one product at random for a visitor at random a request. Arguments: the size of
-- category 1; ids are as made_release.py gives them.
local size = 0

function init(arguments)
  size = tonumber(arguments[1])
end

function request()
  local id = 10000 + 3 * math.random(0, size - 1)
  return wrk.format("GET", string.format(
    "/related?product_id=%d&category_id=1&visitor=%x&limit=12", id, math.random(0, 2 ^ 31 - 1)))
end

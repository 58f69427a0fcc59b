-- wrk: PATCH one product a request, each another, to a price that says which it is: -1 less its item.
-- Arguments: the token, the number of products, the step from one item to the next (it and the number
-- have no common divisor). Each connection waits for $PAUSE_MS between its requests.
local token, n_items, step, item = "", 0, 1, 0

function init(arguments)
  token, n_items, step = arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
end

function request()
  local path = "/products/1/" .. (10000 + 3 * item)
  local body = '{"price":' .. (-1 - item) .. "}"
  item = (item + step) % n_items
  return wrk.format("PATCH", path, {Authorization = "Bearer " .. token}, body)
end

local pause = tonumber(os.getenv("PAUSE_MS") or "0")
if pause > 0 then
  function delay() return pause end
end

-- wrk: one product at random a request, of all categories in proportion to their sizes.
-- Arguments: the size of category 1, of category 2, and so on; ids are as made_release.py gives them.
local first, total = {}, 0

function init(arguments)
  for _, size in ipairs(arguments) do
    first[#first + 1] = total
    total = total + tonumber(size)
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
  return wrk.format("GET", "/nns?category_id=" .. low .. "&product_id=" .. id .. "&limit=12")
end

-- wrk: one product of the bench's release at random a request.
request = function()
  local id = 10000 + 3 * math.random(0, 31666)
  return wrk.format("GET", "/nns?category_id=1&product_id=" .. id .. "&limit=12")
end

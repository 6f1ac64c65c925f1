-- For a notebook's page, also of one that is not ours, after page.lua: its title, and what it refers to but has not.

local function missing(img)
  if not img.src:match '^data:' and not pandoc.mediabag.lookup(img.src) then
    return pandoc.Emph{pandoc.Str('(falta la imagen ' .. img.src .. ')')}
  end
end

function Pandoc(doc)
  local known, heading = {}, nil
  for _, reference in ipairs(pandoc.utils.references(doc)) do known[reference.id] = true end
  local function cite(el)  -- @name may be a decorator, an address
    for _, citation in ipairs(el.citations) do
      if not known[citation.id] then return el.content end
    end
  end
  doc = doc:walk{Cite = cite, Image = missing, Header = function(el)
    if el.level == 1 then heading = heading or el.content end
  end}
  if heading then doc.meta.pagetitle = pandoc.utils.stringify(heading) end
  if FORMAT:match 'typst' then
    doc.meta.title = doc.meta.pagetitle
    pandoc.mediabag.write(PANDOC_STATE.resource_path[1])
  end
  return doc
end

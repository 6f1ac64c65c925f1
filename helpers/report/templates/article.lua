-- For the report: its front page, figures side by side, and the alternative texts that pandoc's
-- Typst writer leaves out.

local function quoted(text)
  return '"' .. text:gsub('\\', '\\\\'):gsub('"', '\\"'):gsub('%s+', ' ') .. '"'
end

local function typst(inline)
  return (pandoc.write(pandoc.Pandoc{pandoc.Plain{inline}}, 'typst'):gsub('%s+$', ''))
end

local function image(img)
  return pandoc.RawInline('typst', '#image(' .. quoted(img.src) .. ', alt: ' ..
    quoted(img.attributes.alt or pandoc.utils.stringify(img.caption)) ..
    (img.attributes.width and ', width: ' .. img.attributes.width or '') .. ')')
end

local function mathematics(math)
  local block = math.mathtype == 'DisplayMath'
  return pandoc.RawInline('typst', '#math.equation(block: ' .. tostring(block) .. ', alt: ' .. quoted(math.text) ..
    ', ' .. typst(math) .. ')')
end

-- Columns of a table too wide for its page: each has room for its longest word, and more the more it has to say.
local ROOM = 112  -- letters in a line of a table

local function widths(tbl)
  local longest, whole, words, letters = {}, {}, 0, 0
  local function measure(rows)
    for _, row in ipairs(rows) do
      for i, cell in ipairs(row.cells) do
        local said = pandoc.utils.stringify(cell.contents)
        whole[i] = math.max(whole[i] or 0, utf8.len(said) + 2)
        for word in said:gmatch '%S+' do longest[i] = math.max(longest[i] or 0, utf8.len(word) + 2) end
      end
    end
  end
  measure(tbl.head.rows)
  for _, body in ipairs(tbl.bodies) do measure(body.body) end
  for i = 1, #whole do
    longest[i] = math.max(longest[i] or 2, i == 1 and math.min(whole[1], 26) or 2)  -- names in the first stay whole
    words, letters = words + longest[i], letters + whole[i]
  end
  if letters <= ROOM then return tbl end
  local spare = math.max(ROOM - words, 0) / math.max(letters - words, 1)
  for i, spec in ipairs(tbl.colspecs) do
    tbl.colspecs[i] = {spec[1], (longest[i] + spare * (whole[i] - longest[i])) / math.max(ROOM, words)}
  end
  return tbl
end

local WHOLE = 10  -- rows: a table of no more does not break across pages

local function laid(tbl)
  local rows = 0
  for _, body in ipairs(tbl.bodies) do rows = rows + #body.body end
  tbl = widths(tbl)
  if rows > WHOLE then return tbl end
  return {pandoc.RawBlock('typst', '#[#show figure.where(kind: table): set block(breakable: false)'), tbl,
          pandoc.RawBlock('typst', ']')}
end

-- pandoc's page has a place for title, authors, date and abstract: what else the front page tells goes beside these.
local function front(meta)
  local where, keywords = pandoc.Inlines{}, pandoc.Inlines{pandoc.Strong 'Palabras clave:', pandoc.Space()}
  for _, name in ipairs{'course', 'programme', 'university'} do
    if meta[name] then
      where:extend(#where > 0 and {pandoc.LineBreak()} or {})
      where:extend(meta[name])
    end
  end
  if meta.keywords and pandoc.utils.type(meta.keywords) ~= 'List' then meta.keywords = pandoc.List{meta.keywords} end
  for i, word in ipairs(meta.keywords or {}) do
    keywords:extend(i > 1 and {pandoc.Str ',', pandoc.Space()} or {})
    keywords:extend(word)
  end
  meta.subtitle = pandoc.MetaInlines(where)
  if meta.abstract and meta.keywords then meta.abstract:insert(pandoc.Para(keywords .. {pandoc.Str '.'})) end
  return meta
end

-- A figure's picture, where it takes half the line or less.
local function narrow(block)
  local found
  if block and block.t == 'Figure' then
    block:walk{Image = function(img) found = img end}
    local width = found and found.attributes.width
    local share = width and tonumber(width:match '^([%d.]+)%%$')
    return share and share <= 50
  end
end

local function widened(figure)
  return figure:walk{Image = function(img) img.attributes.width = '100%'; return img end}
end

-- Two narrow figures, one after the other, stand side by side.
local function pairs_of_figures(blocks)
  local result, i = pandoc.Blocks{}, 1
  while i <= #blocks do
    if narrow(blocks[i]) and narrow(blocks[i + 1]) then
      local left, right = widened(blocks[i]), widened(blocks[i + 1])
      if FORMAT:match 'typst' then
        result:extend{pandoc.RawBlock('typst', '#place(auto, float: true, clearance: 1.2em, block[\n' ..
                        '#show figure.where(kind: image): set figure(placement: none)\n' ..
                        '#grid(columns: (1fr, 1fr), column-gutter: 1.2em, ['),
                      left, pandoc.RawBlock('typst', '], ['), right, pandoc.RawBlock('typst', '])])')}
      else
        result:insert(pandoc.Div({left, right}, pandoc.Attr('', {'pair'})))
      end
      i = i + 2
    else
      result:insert(blocks[i])
      i = i + 1
    end
  end
  return result
end

-- Names as Typst writes text in code, where its markup, which pandoc makes of them, is not read.
local function strings(list)
  if not list then return nil end
  local result = pandoc.List{}
  for _, said in ipairs(pandoc.utils.type(list) == 'List' and list or {list}) do
    result:insert(pandoc.MetaInlines{pandoc.RawInline('typst', quoted(pandoc.utils.stringify(said)))})
  end
  return pandoc.MetaList(result)
end

function Pandoc(doc)
  doc.blocks = pairs_of_figures(doc.blocks)
  if FORMAT:match 'typst' then
    doc.meta['author-strings'], doc.meta['keyword-strings'] = strings(doc.meta.author), strings(doc.meta.keywords)
    return doc:walk{Table = laid}:walk{Image = image, Math = mathematics}
  end
  doc.meta = front(doc.meta)
  return doc
end

-- For pages and for the report. pandoc runs in its sandbox, so what is embedded is what is put in its bag here; in the
-- browser policy.html lets nothing run or be fetched. What would vanish without a word is shown as it was typed.

local TAGS = {}  -- that only set text
for name in ([[a abbr b big blockquote br caption center cite code dd del details div dl dt em figcaption figure font h1 h2
    h3 h4 h5 h6 hr i img ins kbd li mark ol p pre q s samp small span strike strong sub summary sup table tbody td tfoot th
    thead tr tt u ul var]]):gmatch '%S+' do
  TAGS[name] = true
end

local function image(img)
  if img.src:match '^https?:' then return pandoc.Link(#img.caption > 0 and img.caption or img.src, img.src) end
  if not img.src:match '^%a[%w+.-]*:' and not img.src:match '^[/\\]' then
    local found, mime, content = pcall(pandoc.mediabag.fetch, img.src)
    if found and content then pandoc.mediabag.insert(img.src, mime, content) end
  end
end

local function link(el)
  local scheme = el.target:gsub('[%s%c]', ''):lower():match '^([%w+.-]+):'
  if scheme and not ({http = 1, https = 1, mailto = 1})[scheme] then return el.content end
end

-- Raw HTML as an inline, or as none where it is a comment; TeX is a formula, as in Jupyter, or what was typed.
local function raw(el)
  if el.format == 'tex' then
    if el.text:match '^\\%a*newcommand' or el.text:match '^\\def' then return {} end
    return el.text:match '^\\begin' and pandoc.Math('DisplayMath', el.text) or pandoc.Str(el.text)
  end
  if el.format ~= 'html' then return nil end
  local name = (el.text:match '^</?(%a%w*)' or ''):lower()
  if el.text:match '^<!%-%-' then return {} end
  if not TAGS[name] then return pandoc.Str(el.text) end
  if name == 'br' then return pandoc.LineBreak() end
  if name ~= 'img' then return nil end
  local found
  pandoc.read(el.text, 'html', {}, {}):walk{Image = function(img) found = img end}
  return found and (image(found) or found)
end

-- What a cell shows in HTML is one raw block, "output" its first line: read as HTML, a table of it is a table.
local function output(text)
  local blocks = pandoc.read(text, 'html', {}, {}).blocks:walk{Image = image, Link = link}
  local seen = pandoc.utils.stringify(blocks) ~= ''
  blocks:walk{Image = function() seen = true end}
  return seen and blocks or pandoc.Para{pandoc.Emph 'Salida interactiva: solo se ve en Jupyter.'}
end

local function raw_block(el)
  local text = el.format == 'html' and el.text:match '^output\n(.*)$'
  if text then return output(text) end
  local shown = raw(el)
  return shown and shown.t and pandoc.Plain{shown} or shown
end

-- ::: {.equation #eq:x}: the formula, and its number in a paragraph of its own.
local function equation(div)
  if not (FORMAT:match 'typst' and div.classes:includes 'equation') then return nil end
  local number = pandoc.utils.stringify(div.content[2])
  return {pandoc.RawBlock('typst', '#grid(columns: (3em, 1fr, 3em), align: (left + horizon, center + horizon, ' ..
      'right + horizon), [], ['), div.content[1], pandoc.RawBlock('typst', '], [' .. number .. ']) <' .. div.identifier .. '>')}
end

-- In a title or a name, @someone is no citation.
local function uncited(value)
  local kind = pandoc.utils.type(value)
  if kind == 'List' then return value:map(uncited) end
  return kind == 'Inlines' and value:walk{Cite = function(el) return el.content end} or value
end

local function front(meta)
  for name, value in pairs(meta) do
    if name ~= 'abstract' then meta[name] = uncited(value) end
  end
  return meta
end

return {{Image = image, Link = link, RawInline = raw, RawBlock = raw_block, Meta = front, Div = equation}}

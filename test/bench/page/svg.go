package page

import (
	"fmt"
	"html"
	"strings"
)

// svg is a drawing that is readable on a light and on a dark page: it has its own
// background, and its colours follow the reader's.
type svg struct {
	strings.Builder
	width, height float64
}

// style has colours for the tools that colour-blind people can tell apart (Okabe and
// Ito).
const style = `
text{font:13px system-ui,sans-serif;fill:#1f2328}
.ground{fill:#fff}.grid{stroke:#d1d9e0;stroke-width:1}.faint{fill:#59636e}.title{font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}
.sipalive{fill:#0072b2}.keepalived{fill:#d55e00}.ucarp{fill:#8a6d00}
.home{fill:#c9d1d9}.other{fill:#56a3d9}.nobody{fill:#d1242f}.both{fill:#1f2328}.median{stroke:#1f2328;stroke-width:2}
@media (prefers-color-scheme:dark){
text{fill:#f0f6fc}.ground{fill:#0d1117}.grid{stroke:#3d444d}.faint{fill:#9198a1}
.sipalive{fill:#4fb3f0}.keepalived{fill:#ff9248}.ucarp{fill:#d9b93b}
.home{fill:#484f58}.other{fill:#388bfd}.nobody{fill:#ff6a69}.both{fill:#f0f6fc}.median{stroke:#f0f6fc}}
`

func draw(width, height float64, title string) *svg {
	s := &svg{width: width, height: height}
	fmt.Fprintf(s, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %g %g" width="%[1]g" height="%[2]g" role="img"><title>%s</title><style>%s</style>`+"\n",
		width, height, html.EscapeString(title), style)
	s.rect("ground", 0, 0, width, height)
	return s
}

func (s *svg) text(class string, x, y float64, text string) {
	fmt.Fprintf(s, `<text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n", class, x, y, html.EscapeString(text))
}

func (s *svg) rect(class string, x, y, w, h float64) {
	fmt.Fprintf(s, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f"/>`+"\n", class, x, y, w, h)
}

func (s *svg) dot(class string, x, y, r float64) {
	fmt.Fprintf(s, `<circle class="%s" fill-opacity=".65" cx="%.1f" cy="%.1f" r="%.1f"/>`+"\n", class, x, y, r)
}

func (s *svg) line(class string, x1, y1, x2, y2 float64) {
	fmt.Fprintf(s, `<line class="%s" x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f"/>`+"\n", class, x1, y1, x2, y2)
}

func (s *svg) end() string { return s.String() + "</svg>\n" }

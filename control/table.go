package control

import (
	"io"
	"strings"
	"unicode/utf8"
)

// table aligns cells in columns, two spaces apart. An empty cell is shown as "-", except
// in the last column, where it is left out.
type table struct {
	rows [][]string
	look Look
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) write(w io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for i, cell := range row {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			row[i] = oneLine(cell)
			if row[i] == "" && i < len(row)-1 {
				row[i] = "-"
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	for n, row := range t.rows {
		var line strings.Builder
		gap := 0 // blanks before the next cell, so that no line ends in blanks
		for i, cell := range row {
			if cell != "" {
				line.WriteString(strings.Repeat(" ", gap) + t.look.paint(t.tone(n, i), cell))
				gap = 0
			}
			gap += widths[i] - utf8.RuneCountInString(cell) + 2
		}
		if _, err := io.WriteString(w, line.String()+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

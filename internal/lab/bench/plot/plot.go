// SPDX-License-Identifier: Apache-2.0

// Package plot draws the plots of a report: one line for each setting, with a
// band where the true median lies. It turns values into pictures, as SVG for
// pages and as PNG for everything else. It measures nothing, decides nothing
// about the values, opens no file, and gives the same bytes for the same plot.
package plot

import (
	"errors"
	"fmt"
	"image/color"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"

	gonum "gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/podwall/podwall/internal/lab/bench"
)

// The size of a picture without its legend, and what one line of the legend
// adds.
const (
	width      = 18 * vg.Centimeter
	height     = 10 * vg.Centimeter
	legendLine = 0.5 * vg.Centimeter
	margin     = 0.3 * vg.Centimeter
	dotsPerIn  = 144
)

// WriteSVG draws the plot as SVG. A plot needs a point, and positive X where
// that axis is logarithmic.
func WriteSVG(w io.Writer, p bench.Plot) error {
	return write(w, p, func(x, y vg.Length) canvas { return vgsvg.New(x, y) })
}

// WritePNG draws the plot as PNG, with the same conditions.
func WritePNG(w io.Writer, p bench.Plot) error {
	return write(w, p, func(x, y vg.Length) canvas {
		return vgimg.PngCanvas{Canvas: vgimg.NewWith(vgimg.UseWH(x, y), vgimg.UseDPI(dotsPerIn))}
	})
}

type canvas interface {
	vg.CanvasSizer
	io.WriterTo
}

func write(w io.Writer, p bench.Plot, blank func(x, y vg.Length) canvas) error {
	drawing, legend, err := compose(p)
	if err != nil {
		return fmt.Errorf("drawing plot %s: %w", p.Name, err)
	}
	below := legendLine*vg.Length(len(p.Lines)) + margin
	paper := blank(width, height+below)
	all := draw.New(paper)
	drawing.Draw(draw.Crop(all, 0, -margin, below, -margin))
	legend.Draw(draw.Crop(all, 2*margin, 0, margin, -height))
	if _, err := paper.WriteTo(w); err != nil {
		return fmt.Errorf("writing plot %s: %w", p.Name, err)
	}
	return nil
}

// compose makes the drawing and its legend, which stands below so that it
// covers no line.
func compose(p bench.Plot) (*gonum.Plot, *gonum.Legend, error) {
	if err := check(p); err != nil {
		return nil, nil, err
	}
	drawing := gonum.New()
	drawing.Title.Text, drawing.X.Label.Text, drawing.Y.Label.Text = p.Title, p.X, p.Y
	drawing.BackgroundColor = color.White
	drawing.X.Padding, drawing.Y.Padding = vg.Points(4), vg.Points(4)
	drawing.X.Tick.Marker, drawing.Y.Tick.Marker = linear{}, linear{}
	if p.LogX {
		drawing.X.Scale, drawing.X.Tick.Marker = gonum.LogScale{}, gonum.ConstantTicks(ticks(p))
	}
	grid := plotter.NewGrid()
	grid.Vertical.Color, grid.Horizontal.Color = color.Gray{225}, color.Gray{225}
	drawing.Add(grid)
	legend := gonum.NewLegend()
	legend.Left, legend.Top, legend.Padding = true, true, vg.Points(2)
	for i, l := range p.Lines {
		if err := addLine(drawing, &legend, l, i); err != nil {
			return nil, nil, err
		}
	}
	return drawing, &legend, nil
}

func check(p bench.Plot) error {
	points := 0
	for _, l := range p.Lines {
		points += len(l.Points)
		for _, at := range l.Points {
			for _, v := range []float64{at.X, at.Y.Median, at.Y.Low, at.Y.High} {
				if math.IsNaN(v) || math.IsInf(v, 0) {
					return fmt.Errorf("line %s has a point that is no number", l.Name)
				}
			}
			if p.LogX && at.X <= 0 {
				return fmt.Errorf("line %s has a point at %v on a logarithmic axis", l.Name, at.X)
			}
		}
	}
	if points == 0 {
		return errors.New("there is no point")
	}
	return nil
}

// ticks stand at the measured places, since nothing was measured between them.
func ticks(p bench.Plot) []gonum.Tick {
	at := map[float64]bool{}
	for _, l := range p.Lines {
		for _, point := range l.Points {
			at[point.X] = true
		}
	}
	var list []gonum.Tick
	for _, x := range slices.Sorted(maps.Keys(at)) {
		list = append(list, gonum.Tick{Value: x, Label: thousands(x)})
	}
	return list
}

// linear puts ticks at round values, with as many digits as tell them apart.
type linear struct{}

// Ticks implements gonum's Ticker.
func (linear) Ticks(low, high float64) []gonum.Tick {
	const about = 5
	rough := (high - low) / about
	power := math.Pow(10, math.Floor(math.Log10(rough)))
	step := power * 10
	for _, factor := range []float64{1, 2, 5} {
		if power*factor >= rough {
			step = power * factor
			break
		}
	}
	digits := max(0, -int(math.Floor(math.Log10(step)+1e-9)))
	var list []gonum.Tick
	for i := math.Ceil(low/step - 1e-9); i*step <= high+step*1e-9; i++ {
		label := thousands(i * step)
		if digits > 0 {
			label = strconv.FormatFloat(i*step, 'f', digits, 64)
		}
		list = append(list, gonum.Tick{Value: i * step, Label: label})
	}
	return list
}

// thousands writes 100000 as 100,000.
func thousands(v float64) string {
	s := strconv.FormatFloat(v, 'f', -1, 64)
	if v != math.Trunc(v) {
		return s
	}
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// addLine draws the band, the line and its points, sorted along X.
func addLine(drawing *gonum.Plot, legend *gonum.Legend, l bench.Line, index int) error {
	if len(l.Points) == 0 {
		return nil
	}
	points := slices.SortedFunc(slices.Values(l.Points), func(a, b bench.Point) int {
		switch {
		case a.X < b.X:
			return -1
		case a.X > b.X:
			return 1
		}
		return 0
	})
	line, dots, err := plotter.NewLinePoints(along(points, func(i bench.Interval) float64 { return i.Median }))
	if err != nil {
		return fmt.Errorf("drawing line %s: %w", l.Name, err)
	}
	band, err := bandOf(points)
	if err != nil {
		return fmt.Errorf("drawing the band of line %s: %w", l.Name, err)
	}
	c := palette(index)
	line.Color, line.Width, line.Dashes = c, vg.Points(1.5), dashes(index)
	dots.Color, dots.Shape, dots.Radius = c, shape(index), vg.Points(2.5)
	band.Color, band.LineStyle.Width = color.NRGBA{c.R, c.G, c.B, 40}, 0
	drawing.Add(band, line, dots)
	legend.Add(l.Name, line, dots)
	return nil
}

func along(points []bench.Point, y func(bench.Interval) float64) plotter.XYs {
	list := make(plotter.XYs, len(points))
	for i, p := range points {
		list[i].X, list[i].Y = p.X, y(p.Y)
	}
	return list
}

// bandOf goes along the upper ends and back along the lower ones.
func bandOf(points []bench.Point) (*plotter.Polygon, error) {
	around := along(points, func(i bench.Interval) float64 { return i.High })
	back := along(points, func(i bench.Interval) float64 { return i.Low })
	slices.Reverse(back)
	return plotter.NewPolygon(append(around, back...))
}

// palette are colours that people with any colour vision can tell apart; lines
// differ in their points and dashes too, for print.
func palette(index int) color.NRGBA {
	list := [...]color.NRGBA{
		{0, 0, 0, 255}, {0, 114, 178, 255}, {213, 94, 0, 255}, {0, 158, 115, 255},
		{204, 121, 167, 255}, {230, 159, 0, 255}, {86, 180, 233, 255},
	}
	return list[index%len(list)]
}

func shape(index int) draw.GlyphDrawer {
	list := [...]draw.GlyphDrawer{draw.CircleGlyph{}, draw.SquareGlyph{}, draw.TriangleGlyph{}, draw.PyramidGlyph{},
		draw.BoxGlyph{}, draw.RingGlyph{}, draw.CrossGlyph{}}
	return list[index%len(list)]
}

func dashes(index int) []vg.Length {
	list := [...][]vg.Length{nil, nil, {vg.Points(6), vg.Points(2)}, {vg.Points(2), vg.Points(2)}}
	return list[index%len(list)]
}

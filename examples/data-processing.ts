// Turns CSV into a summary. In a call from a model the text would come in `globals`, as it does here with
//   conductorctl run examples/data-processing.ts --globals '{"csv": "region,amount\nnorth,3\nsouth,4\nnorth,5"}'
declare const csv: string | undefined;

const text = typeof csv === "string" ? csv : "region,amount\nnorth,120.5\nsouth,80\nnorth,99.5\neast,7";

const [header, ...lines] = text.trim().split("\n").map((line) => line.split(","));
const rows = lines.map((cells) => Object.fromEntries(header.map((name, i) => [name, cells[i]])));

const byRegion = Object.groupBy(rows, (row) => row.region);
const totals = Object.entries(byRegion).map(([region, group = []]) => ({
  region,
  rows: group.length,
  total: group.reduce((sum, row) => sum + Number(row.amount), 0),
}));

console.table(totals);
totals.toSorted((a, b) => b.total - a.total);

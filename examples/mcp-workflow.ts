// Three MCP servers in one call: files are read and written, numbers added up, and the result is remembered.
// Needs the servers of mcp-config.json.
const file = (name: string) => `${WORKSPACE_DIR}/${name}`;

await mcp.filesystem.write_file({ path: file("sales.csv"), content: "north,3\nsouth,4\nnorth,5\n" });

// What does not depend on each other runs at once.
const [sales, meeting] = await Promise.all([
  mcp.filesystem.read_text_file({ path: file("sales.csv") }),
  mcp.time.convert_time({ source_timezone: "UTC", time: "09:00", target_timezone: "Asia/Tokyo" }),
]);

const totals: Record<string, number> = {};
for (const line of sales.content.trim().split("\n")) {
  const [region, amount] = line.split(",");
  totals[region] = (totals[region] ?? 0) + Number(amount);
}

const entities = Object.entries(totals).map(([name, total]) => (
  { name, entityType: "region", observations: [`sold ${total}`] }
));
await mcp.memory.create_entities({ entities });
await mcp.filesystem.write_file({ path: file("totals.json"), content: JSON.stringify(totals) });

// Only this reaches the model: neither the file nor the answers of the servers do.
({ totals, toldInTokyoAt: meeting.target.datetime.slice(11, 16) });

// What conductor does, in one file: TypeScript, top-level await, output, a value.
interface Reading {
  city: string;
  celsius: number;
}

const readings: Reading[] = [
  { city: "Oslo", celsius: 4.5 },
  { city: "Lima", celsius: 19.2 },
  { city: "Pune", celsius: 27.8 },
];

const warm = readings.filter((reading) => reading.celsius > 15);
console.log(`${warm.length} of ${readings.length} cities are warm`);

const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(JSON.stringify(readings)));
const checksum = new Uint8Array(digest).toHex().slice(0, 12);

// The last expression is what comes back.
({ warm: warm.map((reading) => reading.city), checksum });

// Runs every benchmark beside this file, one after another, and prints what they found. Fails if a target is missed.

import { readdir } from 'node:fs/promises';
import { type BenchResult, isMet } from './bench.js';

const only = process.argv[2] ?? '';
const files = (await readdir(new URL('.', import.meta.url)))
  .filter((name) => name.endsWith('.bench.js') && name.includes(only))
  .sort();

const rows: string[][] = [['', 'measured', 'compared with', 'ratio', 'target', '']];
for (const file of files) {
  const module = (await import(new URL(file, import.meta.url).href)) as {
    bench: () => Promise<BenchResult[]>;
  };
  for (const result of await module.bench()) {
    const met = isMet(result);
    rows.push([
      result.name,
      `${format(result.value)} ${result.unit}`,
      result.reference ? `${result.reference.name}: ${format(result.reference.value)} ${result.unit}` : '',
      result.ratio === undefined ? '' : format(result.ratio),
      result.target ?? '',
      met === null ? '' : met ? 'met' : 'MISSED',
    ]);
    if (met === false) process.exitCode = 1;
  }
}
const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => (row[column] ?? '').length)));
for (const row of rows) {
  console.log(
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function format(value: number): string {
  return value.toPrecision(3);
}

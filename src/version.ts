// Romulus' own version, as package.json says it.

import { readFileSync } from 'node:fs';

/** "0.1.0" */
export function packageVersion(): string {
  // From dist/src/ up to the package's root.
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  const { version } = JSON.parse(text) as { version: string };
  return version;
}

// Romulus' own version, as package.json says it: for hello messages, the build-info metric and `--version`.

import { readFileSync } from 'node:fs';

function readVersion(): string {
  // From dist/src/ to the package's root.
  const manifest: unknown = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  if (typeof manifest === 'object' && manifest !== null && 'version' in manifest) {
    if (typeof manifest.version === 'string') return manifest.version;
  }
  return 'unknown';
}

export const VERSION = readVersion();

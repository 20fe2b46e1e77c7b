// promtool: Prometheus' own checker of metrics, rules and configurations.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { ensureTool } from './tools.js';

/** Time that fetching the package may take on a slow machine. */
export const PROMTOOL_TIMEOUT_MS = 300_000;

export interface PromtoolRun {
  readonly code: number | null;
  /** Standard output and standard error, as they came. */
  readonly output: string;
}

/** Null: promtool is not here and cannot be had, and the test may skip itself. */
export async function promtool(given: readonly string[], input = ''): Promise<PromtoolRun | null> {
  const path = await ensureTool('promtool', 'prometheus');
  if (path === null) return null;
  const child = spawn(path, given, { stdio: 'pipe' });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk: Buffer) => (output += chunk.toString()));
  }
  child.stdin.end(input);
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, output };
}

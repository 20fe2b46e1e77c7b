// The command line as a user calls it, for the tests of the verbs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { fileURLToPath } from 'node:url';

const entry = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));

export interface Result {
  readonly exitCode: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs romulus to its end; `onOutput` sees all that it has printed so far, each time it prints. */
export async function romulus(
  args: readonly string[],
  onOutput?: (printed: string, pid: number) => void,
): Promise<Result> {
  const child = spawn(process.execPath, [entry, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  const look = (): void => {
    if (child.pid !== undefined) onOutput?.(stdout + stderr, child.pid);
  };
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    look();
  });
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    look();
  });
  await once(child, 'close');
  return { exitCode: child.exitCode, stdout, stderr };
}

export async function demoDirectories(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith('romulus-demo-')).sort();
}

// The command line as a user calls it, for the tests of the verbs.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
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

/** Processes whose parent is `pid`, as /proc tells. */
export async function childrenOf(pid: number): Promise<number[]> {
  const text = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
  return text.split(' ').filter(Boolean).map(Number);
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

export async function demoDirectories(): Promise<string[]> {
  return (await readdir(tmpdir())).filter((name) => name.startsWith('romulus-demo-')).sort();
}

/** Resolves when the condition holds; fails after `limitMs`. */
export async function until(condition: () => boolean, limitMs = 20_000): Promise<void> {
  const end = performance.now() + limitMs;
  while (!condition()) {
    if (performance.now() > end) throw new Error(`did not come to pass within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

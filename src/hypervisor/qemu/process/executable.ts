// Programs that we run, as PATH has them.

import { access, constants } from 'node:fs/promises';
import { delimiter, join } from 'node:path';

/** The path of a command; null: there is none. */
export async function findExecutable(command: string): Promise<string | null> {
  const candidates = command.includes('/')
    ? [command]
    : (process.env['PATH'] ?? '').split(delimiter).map((directory) => join(directory, command));
  for (const candidate of candidates) {
    try {
      await access(candidate, constants.X_OK);
      return candidate;
    } catch {
      // Not this one.
    }
  }
  return null;
}

// A file that is YAML, and no more than a configuration needs of it: one document, known tags, few aliases, no key twice.

import { readFile, stat } from 'node:fs/promises';
import { parseDocument } from 'yaml';
import { asError } from '../errors.js';
import { ConfigError, type ConfigErrorCode } from './error.js';

const FILE_BYTES_MAX = 2 ** 20;

/** What is in the file, unchecked. @throws ConfigError UNREADABLE, TOO_LARGE or BAD_YAML */
export async function readYaml(file: string): Promise<unknown> {
  let source: string;
  try {
    const { size } = await stat(file);
    if (size > FILE_BYTES_MAX) {
      throw problem('TOO_LARGE', file, `${size} octets`, `at most ${FILE_BYTES_MAX} octets`);
    }
    source = await readFile(file, 'utf8');
  } catch (thrown) {
    if (thrown instanceof ConfigError) throw thrown;
    throw problem('UNREADABLE', file, asError(thrown).message, 'a file that can be read', thrown);
  }
  return parseYaml(source, file);
}

function parseYaml(source: string, file: string): unknown {
  const document = parseDocument(source, { logLevel: 'error', uniqueKeys: true });
  // A warning is about a tag that YAML does not know: the value would be taken for something that it is not.
  const faults = [...document.errors, ...document.warnings];
  if (faults.length > 0) {
    const problems = faults.map((fault) => ({
      path: fault.linePos ? `line ${fault.linePos[0].line}, column ${fault.linePos[0].col}` : '(top)',
      given: firstLine(fault.message),
      expected: 'YAML',
    }));
    throw new ConfigError('BAD_YAML', file, problems);
  }
  try {
    return document.toJS({ maxAliasCount: 100 });
  } catch (thrown) {
    throw problem('BAD_YAML', file, firstLine(asError(thrown).message), 'YAML with few aliases', thrown);
  }
}

function problem(
  code: ConfigErrorCode,
  file: string,
  given: string,
  expected: string,
  cause?: unknown,
): ConfigError {
  return new ConfigError(code, file, [{ path: '(top)', given, expected }], { cause });
}

function firstLine(message: string): string {
  return message.replace(/\n.*/s, '');
}

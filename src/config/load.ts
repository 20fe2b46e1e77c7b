// From a file or an object to a configuration, or to a ConfigError that tells every problem at once.

import path from 'node:path';
import type { z } from 'zod';
import { ConfigError } from './error.js';
import { check, problemOf } from './problems.js';
import { type PrimaryConfig, primarySchema, type SecondaryConfig, secondarySchema } from './schema.js';
import { readYaml } from './yaml.js';

/** Where an object came from. */
export interface Origin {
  /** What relative paths start from; default: the working directory. */
  readonly directory?: string;
  /** The file's name for error messages. */
  readonly file?: string;
}

/** @throws ConfigError */
export async function loadPrimaryConfig(file: string): Promise<PrimaryConfig> {
  return parsePrimaryConfig(await readYaml(file), { directory: path.dirname(path.resolve(file)), file });
}

/** @throws ConfigError */
export async function loadSecondaryConfig(file: string): Promise<SecondaryConfig> {
  return parseSecondaryConfig(await readYaml(file), { directory: path.dirname(path.resolve(file)), file });
}

/** @throws ConfigError INVALID */
export function parsePrimaryConfig(given: unknown, origin: Origin = {}): PrimaryConfig {
  return checked(primarySchema(origin.directory ?? process.cwd()), given, origin);
}

/** @throws ConfigError INVALID */
export function parseSecondaryConfig(given: unknown, origin: Origin = {}): SecondaryConfig {
  return checked(secondarySchema(origin.directory ?? process.cwd()), given, origin);
}

function checked<Schema extends z.ZodType>(schema: Schema, given: unknown, origin: Origin): z.output<Schema> {
  const { value, findings } = check(schema, given);
  if (findings === null) return value;
  throw new ConfigError('INVALID', origin.file ?? null, findings.map(problemOf));
}

// The examples in config/ are what people start from: they load, they show every key, and their values are the
// defaults they claim to be.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { parse } from 'yaml';
import { z } from 'zod';
import {
  loadPrimaryConfig,
  loadSecondaryConfig,
  parsePrimaryConfig,
  parseSecondaryConfig,
} from '../../src/config/load.js';
import { primarySchema, secondarySchema } from '../../src/config/schema.js';

const PRIMARY = 'config/primary.yaml';
const SECONDARY = 'config/secondary.yaml';

/** With the settings that are switched off switched on: all but "# " before words. */
function switchedOn(file: string): string {
  return readFileSync(file, 'utf8').replace(/^( *)#(?! ?$| [^ ])/gm, '$1');
}

function keysOf(schema: z.ZodType): Set<string> {
  const keys = new Set<string>();
  const walk = (node: unknown): void => {
    if (typeof node !== 'object' || node === null) return;
    for (const [name, value] of Object.entries(node as Record<string, unknown>)) {
      if (name === 'properties' && typeof value === 'object' && value !== null) {
        for (const key of Object.keys(value)) keys.add(key);
      }
      walk(value);
    }
  };
  walk(z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' }));
  return keys;
}

describe('config examples', () => {
  it('load, and hold the defaults', async () => {
    const hypervisor = { kind: 'embedded' };
    expect(await loadPrimaryConfig(PRIMARY)).to.deep.equal(
      parsePrimaryConfig({ domains: [{ name: 'web', hypervisor }] }),
    );
    expect(await loadSecondaryConfig(SECONDARY)).to.deep.equal(
      parseSecondaryConfig({ domains: [{ name: 'web', primary: 'ws://127.0.0.1:7300', hypervisor }] }),
    );
  });

  for (const [file, schema] of [
    [PRIMARY, primarySchema('/')],
    [SECONDARY, secondarySchema('/')],
  ] as const) {
    it(`${file} shows each key of the schema`, () => {
      const keys = keysOf(schema);
      expect(keys.size).to.be.greaterThan(30);
      const source = readFileSync(file, 'utf8');
      const missing = [...keys].filter(
        (key) => !new RegExp(`^[ #-]*(console: \\{ )?${key}:`, 'm').test(source),
      );
      expect(missing).to.deep.equal([]);
    });
  }

  it('are right in what they switch off, too', () => {
    const guestAway = (document: { domains: { hypervisor: { guest?: unknown } }[] }) => {
      for (const domain of document.domains) delete domain.hypervisor.guest;
      return document;
    };
    const primary: unknown = guestAway(
      parse(switchedOn(PRIMARY), { uniqueKeys: false }) as Parameters<typeof guestAway>[0],
    );
    const config = parsePrimaryConfig(primary, { directory: '/etc/romulus' });
    expect(config.listen.tls).to.deep.equal({
      cert: '/etc/romulus/primary.crt',
      key: '/etc/romulus/primary.key',
      ca: '/etc/romulus/ca.crt',
    });
    expect(config.hooks.command).to.have.length(2);
    expect(config.hooks.webhook).to.deep.equal({
      url: 'http://127.0.0.1:8080/romulus',
      attempts: 5,
      timeoutMs: 2000,
      retryDelayMs: 500,
    });
    expect(config.domains[0]?.output.console).to.deep.equal({
      kind: 'file',
      file: '/etc/romulus/web.console',
    });
    expect(config.domains[0]?.output.tap).to.equal('/etc/romulus/web.tap');
    expect(config.domains[0]?.hypervisor.boot).to.include({ kind: 'image', kernel: '/etc/romulus/bzImage' });

    const source = switchedOn(SECONDARY).replace('primary: ws://', 'primary: wss://');
    const secondary: unknown = guestAway(
      parse(source, { uniqueKeys: false }) as Parameters<typeof guestAway>[0],
    );
    const [domain] = parseSecondaryConfig(secondary, { directory: '/etc/romulus' }).domains;
    expect(domain?.tls?.key).to.equal('/etc/romulus/secondary.key');
    expect(domain?.output.tap).to.equal('/etc/romulus/web.tap');
  });
});

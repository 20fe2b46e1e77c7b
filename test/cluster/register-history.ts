// All registers that a domain has had, as the etcd remembers them, as a program on the witness' host.
//
//   register-history.js ENDPOINT DOMAIN     says them as a JSON array, the first first

import { fileURLToPath } from 'node:url';
import type { Register } from '../../src/failover/register.js';
import { base64, gateway } from '../failover/etcd-support.js';

interface Range {
  readonly kvs?: readonly { readonly value: string; readonly mod_revision: string }[];
}

async function historyOf(endpoint: string, domain: string): Promise<Register[]> {
  const key = base64(`/romulus/${domain}`);
  const registers: Register[] = [];
  for (let at = {}; ;) {
    const { kvs: [held] = [] } = await gateway<Range>(endpoint, 'kv/range', { key, ...at });
    if (held === undefined) return registers;
    registers.unshift(JSON.parse(Buffer.from(held.value, 'base64').toString()) as Register);
    at = { revision: String(Number(held.mod_revision) - 1) };
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , endpoint = '', domain = ''] = process.argv;
  process.stdout.write(JSON.stringify(await historyOf(endpoint, domain)));
}

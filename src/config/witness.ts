// The witness: who says which host may run a domain when the hosts do not see each other. One section for each kind.

import path from 'node:path';
import { z } from 'zod';
import { isLoopback } from '../channel/credentials/security.js';
import { stateDirectory } from '../channel/credentials/token-file.js';
import { duration, flag, list, pathField, type Resolve, section, text, url, wholeNumber } from './fields.js';
import { commandField } from './sections.js';

const ENDPOINT = 'an address such as https://10.0.0.9:2379, with nothing after the port';
const PREFIX =
  'what the names of its keys begin with, such as /romulus/: at most 128 letters, without blanks';
const SHARED_DIRECTORY = 'the path of a directory that is the same on all hosts (without {host})';
const TOGETHER = 'cert and key together, or neither';

/** Of one question to a witness that only has to look. */
function timeoutField() {
  return duration(10, 60_000).default(1000);
}

function endpointField() {
  return url(['http:', 'https:']).refine(
    (given) => {
      const { pathname, search, hash, username, password } = new URL(given);
      return pathname === '/' && [search, hash, username, password].every((part) => part === '');
    },
    { error: ENDPOINT },
  );
}

function etcdSchema(resolve: Resolve) {
  const file = () => pathField(resolve);
  return section({
    kind: z.literal('etcd'),
    endpoints: list(endpointField(), 1, 9, 'a list of 1 to 9 addresses, one of each member of the etcd'),
    plaintext: flag().default(false),
    tls: section({ cert: file().optional(), key: file().optional(), ca: file() })
      .check((context) => {
        const { cert, key } = context.value;
        if ((cert === undefined) === (key === undefined)) return;
        const missing = cert === undefined ? 'cert' : 'key';
        context.issues.push({ code: 'custom', path: [missing], input: undefined, message: TOGETHER });
      })
      .optional(),
    user: text('the name of a user of the etcd').optional(),
    passwordFile: file().optional(),
    prefix: text(PREFIX)
      .regex(/^[!-~]{1,128}$/, { error: PREFIX })
      .default('/romulus/'),
    timeoutMs: timeoutField(),
  })
    .check((context) => {
      const { endpoints, plaintext, tls, user, passwordFile } = context.value;
      const issue = (keys: PropertyKey[], input: unknown, message: string) =>
        context.issues.push({ code: 'custom', path: keys, input, message });
      if ((user === undefined) !== (passwordFile === undefined)) {
        const missing = user === undefined ? 'user' : 'passwordFile';
        issue([missing], undefined, 'user and passwordFile together, or neither');
      }
      if (tls && plaintext) issue(['plaintext'], plaintext, 'false where tls is given');
      endpoints.forEach((endpoint, index) => {
        const { protocol, hostname } = new URL(endpoint);
        if (protocol === 'https:') return;
        if (tls) issue(['endpoints', index], endpoint, 'an https:// address where tls is given');
        else if (!plaintext && !isLoopback(hostname)) {
          issue(
            ['endpoints', index],
            endpoint,
            'https://, or a loopback address, or "plaintext: true" beside it (whoever is on the way says who may run)',
          );
        }
      });
    })
    .transform(({ kind, endpoints, tls, user, passwordFile, prefix, timeoutMs }) => {
      const login =
        user !== undefined && passwordFile !== undefined ? { name: user, passwordFile } : undefined;
      return { kind, endpoints, tls, user: login, prefix, timeoutMs };
    });
}

function fileSchema(resolve: Resolve) {
  return section({
    kind: z.literal('file'),
    // A directory of its own on each host is a register of its own: each of them would go on alone.
    directory: text(SHARED_DIRECTORY)
      .refine((given) => !given.includes('{host}'), { error: SHARED_DIRECTORY, abort: true })
      .transform(resolve),
    timeoutMs: timeoutField(),
  });
}

function fenceSchema(resolve: Resolve) {
  return section({
    kind: z.literal('fence'),
    command: commandField(),
    timeoutMs: duration(100, 3_600_000).default(60_000),
    attempts: wholeNumber(1, 100).default(3),
    retryDelayMs: duration(1, 60_000).default(1000),
    // A directory of its own: the names of files in it are those of domains.
    directory: text('the path of a directory')
      .prefault(() => path.join(stateDirectory(), 'register', '{host}'))
      .transform(resolve),
  });
}

export function witnessSchema(resolve: Resolve) {
  const kinds = [
    etcdSchema(resolve),
    fileSchema(resolve),
    fenceSchema(resolve),
    section({ kind: z.literal('none') }),
  ] as const;
  return z.discriminatedUnion('kind', kinds, {
    error:
      'a section with kind: etcd, file, fence or none (who says which host may run a domain when they do not see each other)',
  });
}

/** Files and directories are absolute; etcd's `user` has the file of its password beside its name. */
export type WitnessConfig = z.output<ReturnType<typeof witnessSchema>>;

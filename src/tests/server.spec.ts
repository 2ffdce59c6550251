import { ServerConnection } from '@jupyterlab/services';

import { Server } from '../server';
import { ServerError } from '../types';

interface IAnswer {
  status?: number;
  redirected?: boolean;
  text: string;
}

/** A server to which a hub or a proxy gives an answer. */
function behind({ status = 200, redirected = false, text }: IAnswer, made: RequestInit[] = []): Server {
  const answer = {
    status,
    redirected,
    ok: status < 300,
    statusText: 'Text',
    headers: new Map(),
    json: async () => JSON.parse(text)
  };
  const settings = {
    baseUrl: 'http://localhost/user/me/',
    fetch: async () => answer,
    Request: class {
      headers = new Map();
      constructor(_: string, init: RequestInit) {
        made.push(init);
      }
    },
    Headers: Map
  };
  return new Server({ ...settings, init: {} } as unknown as ServerConnection.ISettings);
}

const code = async (asked: Promise<unknown>): Promise<string> =>
  asked.then(
    () => 'none',
    (error: ServerError) => error.notice.code
  );

const PAGE = '<!DOCTYPE html><title>JupyterHub</title>';

test.each<[string, IAnswer, string]>([
  ['the server’s own', { text: '{"notices": []}' }, 'none'],
  ['a refusal of its own', { status: 409, text: '{"code": "busy", "message": "No.", "hint": ""}' }, 'busy'],
  [
    'its own where the index is away',
    { status: 502, text: '{"code": "index-unreachable"}' },
    'index-unreachable'
  ],
  ['the page to log in', { redirected: true, text: PAGE }, 'logged-out'],
  ['some other page', { text: PAGE }, 'unreachable'],
  ['a hub’s, of a server that is stopped', { status: 424, redirected: true, text: PAGE }, 'unreachable'],
  ['the same for programs', { status: 503, text: '{"message": "Server not running"}' }, 'unreachable'],
  ['a proxy’s', { status: 502, text: '' }, 'unreachable'],
  ['another error', { status: 500, text: 'oops' }, 'internal']
])('an answer: %s', async (_, answer, expected) => {
  expect(await code(behind(answer).status())).toBe(expected);
  expect(await code(behind(answer).job('a1'))).toBe(expected);
});

test('a request can be ended', async () => {
  const { signal } = new AbortController();
  const made: RequestInit[] = [];
  const server = behind({ text: '{}' }, made);
  await server.plan({ install: ['demo'] }, signal);
  await server.search('demo', signal);
  await server.status();
  expect(made.map(init => init.signal)).toEqual([signal, signal, undefined]);
});

test('a server that stops says nothing', async () => {
  expect(await code(behind({ text: '' }).shutdown())).toBe('none');
  expect(await code(behind({ redirected: true, text: PAGE }).shutdown())).toBe('logged-out');
});

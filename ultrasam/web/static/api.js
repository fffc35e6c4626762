// Talks to the server. Every failure is a ServerError with one sentence to show.

export class ServerError extends Error {
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

const AWAY = "The server does not answer; check that it still runs, then try again.";

function sentenceOf(text, status) {
  try {
    return JSON.parse(text).error || `The server answered ${status}.`;
  } catch {
    return `The server answered ${status}.`;
  }
}

async function request(method, path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: body === undefined ? {} : { "content-type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(AWAY, 0);
  }
  if (!response.ok) throw new ServerError(sentenceOf(await response.text(), response.status), response.status);
  return response;
}

const frames = (id, frame) => `/api/studies/${id}/frames/${frame}`;

export const api = {
  info: async () => (await request("GET", "/api/info")).json(),
  study: async (id) => (await request("GET", `/api/studies/${id}`)).json(),
  close: (id) => request("DELETE", `/api/studies/${id}`),
  alive: (id) => request("POST", `/api/studies/${id}/alive`),
  clip: (id, on) => request("POST", `/api/studies/${id}/clip/${on ? "on" : "off"}`),
  objects: async (id, frame, signal) => (await request("GET", `${frames(id, frame)}/objects`, { signal })).json(),
  encode: async (id, frame, signal) => (await request("POST", `${frames(id, frame)}/encode`, { signal })).json(),
  edit: async (id, frame, edit) => (await request("POST", `${frames(id, frame)}/edits`, { body: edit })).json(),
  image: async (id, frame, signal) =>
    createImageBitmap(await (await request("GET", `${frames(id, frame)}/image`, { signal })).blob()),

  // Returns {blob, name} of a result file.
  async file(id, kind, frame) {
    const response = await request("GET", `/api/studies/${id}/files/${kind}?frame=${frame}`);
    const header = response.headers.get("content-disposition") || "";
    const name = /filename\*=UTF-8''([^;]+)/.exec(header);
    return { blob: await response.blob(), name: name ? decodeURIComponent(name[1]) : "result" };
  },

  // Sends a file; `progress` is called with 0 to 1 while it goes. fetch cannot tell how far it is.
  upload(file, progress) {
    return new Promise((resolve, reject) => {
      const sender = new XMLHttpRequest();
      sender.open("POST", `/api/studies?name=${encodeURIComponent(file.name)}`);
      sender.setRequestHeader("content-type", "application/octet-stream");
      sender.upload.onprogress = (event) => event.lengthComputable && progress(event.loaded / event.total);
      sender.onload = () => {
        if (sender.status === 201) resolve(JSON.parse(sender.responseText));
        else reject(new ServerError(sentenceOf(sender.responseText, sender.status), sender.status));
      };
      sender.onerror = () => reject(new ServerError(AWAY, 0));
      sender.send(file);
    });
  },
};
